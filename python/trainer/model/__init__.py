"""The GPT-NeoX model in PyTorch: its arithmetic (`neox`) and how its weights start (`init`)."""
