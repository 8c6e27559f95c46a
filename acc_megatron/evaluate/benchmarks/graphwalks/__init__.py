"""GraphWalks (openai/graphwalks, MIT): set operations on a graph that is listed in the prompt."""
