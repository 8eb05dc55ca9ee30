"""Sources: folders, torchvision, `datasets` -> real images, one after another."""
