"""The host side: from text to batches. Imports TensorFlow lazily and JAX never."""
