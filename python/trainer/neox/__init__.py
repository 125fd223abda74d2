"""What GPT-NeoX writes: its YAML configurations and its checkpoints, read without running anything."""
