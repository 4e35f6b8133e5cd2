"""Large language models: the client, the engines behind it, the quality gate and the store of generations."""
