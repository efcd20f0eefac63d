"""In what two checkpoints differ, each in any format: config, tensors, tokenizer."""
