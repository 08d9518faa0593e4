"""The shared async model-operations layer: what the product can do, without any screen."""
