"""Devices and processes: the mesh, the placement of parameters, the processes."""
