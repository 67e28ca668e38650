"""Versions of the dataset: DVC and git called as a person would, dvc.lock read, versions saved and compared."""
