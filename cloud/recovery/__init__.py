"""Lost and replaced gateways: closures, claims, statements, and the gateways that go on."""
