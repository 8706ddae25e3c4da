"""The MONAI Label app: boxes of several readers, and the models that learn from them."""
