"""Training face detectors: data, augmentation, losses, the loop."""
