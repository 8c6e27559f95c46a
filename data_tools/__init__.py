"""Offline tools that turn trajectories into a tokenised dataset folder; they never import torch."""

if __name__ == "data_tools":
    raise ImportError("this folder is installed as acc_megatron.data_tools: use 'import acc_megatron.data_tools'")
