"""One file per toolbox algorithm: parameters in, one engine call, layers out."""
