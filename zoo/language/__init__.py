"""The causal language model: loading, adapters, templates, generation (to come with the image-to-language stacks)."""
