"""A certificate for localhost and its key. They were made for the tests and protect nothing."""

from pathlib import Path

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggirFCKxnm+OMX54R
DmomKbaDGxA8qHDguyZbh/75BkyhRANCAAQge0OgNARTdQVvxadIR1r9xxE7KGa/
CXBIauxaiTzFUJ1Q+iI1J6ZG+7nHYkeERzeS6W36TgCamHE9lBO/6gqu
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUQVPifX4WsS4SxU9ijG2LPzOOTjEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzE3MTYxM1oYDzIxMjYxMTAz
MTcxNjEzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQge0OgNARTdQVvxadIR1r9xxE7KGa/CXBIauxaiTzFUJ1Q+iI1J6ZG
+7nHYkeERzeS6W36TgCamHE9lBO/6gquo28wbTAdBgNVHQ4EFgQUVC9TanPuFsx+
/qoxrIkXoacCbHYwHwYDVR0jBBgwFoAUVC9TanPuFsx+/qoxrIkXoacCbHYwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAJFB1lFr1HAHL7oOu4azUEWtHcXeQ7p+03dxaKbn454BAiEA
9AAJq1nneuYIBMPsO7CTNx1AeP26k2AZkH5+Jhh4Jnk=
-----END CERTIFICATE-----
"""


def written(folder: Path) -> tuple[Path, Path]:
    """Certificate and key as files."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return certificate, key
