"""Commands that are no stages: finding faces in any folder, training and measuring detectors, export."""
