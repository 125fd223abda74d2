"""The toy: a VQGAN and a CLIP of about a megabyte, which know captioned drawings of five shapes."""
