"""The formats that agents' logs are written in, each read into steps and turns."""
