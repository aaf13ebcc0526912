"""Fit, evaluate, save, log: the only room that knows devices, processes and Lightning Fabric."""
