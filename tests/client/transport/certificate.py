"""The certificate of the server behind TLS."""

from pathlib import Path

PEM = Path(__file__).with_name("tls.pem")
