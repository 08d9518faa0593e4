"""Loads models; on a CPU converts their weights to float32, or to layers that dequantize them blockwise."""
