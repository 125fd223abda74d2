"""What a run keeps: published Hugging Face folders of its weights, and the state to go on from."""
