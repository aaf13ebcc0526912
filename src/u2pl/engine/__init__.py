"""Fit, evaluate, save, log: the only package that handles devices, processes and Lightning Fabric."""
