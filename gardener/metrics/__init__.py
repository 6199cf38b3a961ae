"""What Prometheus is told: of requests, of the ring, and of a node. Needs extra `metrics`."""
