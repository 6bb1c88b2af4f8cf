"""The torch adapter: the only place that imports torch and torchvision."""
