"""How Portmare is made: one module per kind of layer, in local metres (0..24 km, 0..18 km)."""
