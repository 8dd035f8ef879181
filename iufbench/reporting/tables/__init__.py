"""Tables of finished runs beside published values."""
