"""What gateways prove of their key hardware, at enrolment and with every report."""
