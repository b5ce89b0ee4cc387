"""The wire to NATS: connection, requests, publisher, consumer, streams."""
