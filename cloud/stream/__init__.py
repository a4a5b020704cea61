"""What carries work between the cloud's processes: in one of them, or by NATS JetStream."""
