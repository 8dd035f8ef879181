"""Plain torch, no Avalanche: the frozen backbone, UniAD and the IUF network."""
