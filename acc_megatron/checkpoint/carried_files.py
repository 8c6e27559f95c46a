"""Files of a Hugging Face folder that a checkpoint carries along, so that an export has all that was imported."""

CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# which tensors were in which file, so that an export has the same files
TENSORS_BY_FILE = "safetensors_files.json"
