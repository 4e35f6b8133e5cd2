"""Tables, figures, the HTML page and model cards of finished runs."""
