"""From a trained run to predictions, results and comparisons."""
