"""Where arrays live: the mesh, the placement of parameters, the processes."""
