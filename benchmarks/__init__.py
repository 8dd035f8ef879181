"""What is measured: protocol and data set cards, and the Avalanche streams built from them."""
