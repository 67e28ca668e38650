"""Training: faces in memory, augmentation on the device, objectives, the loop, checkpoints, preview pictures."""

ENCODER = "autoencoder:"
"""In `train.options.features`, before the folder of a trained model whose encoder is to give the features. It stands
here, where nothing is imported, since whoever only looks for files that parameters name must not wait for torch."""
