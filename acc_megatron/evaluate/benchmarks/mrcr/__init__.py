"""OpenAI MRCR (openai/mrcr, MIT): repeat the text that answered one of several equal requests in a long chat."""
