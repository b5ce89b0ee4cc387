"""What people write: flows, flow files, checks, the graph, prompts, inputs."""
