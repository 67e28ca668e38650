"""Training: faces in memory, augmentation on the device, objectives, the loop, checkpoints, preview pictures."""
