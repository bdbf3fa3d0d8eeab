"""The paths, one module a family: each is a class with its services and a `router()`."""
