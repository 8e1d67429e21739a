"""The human-motion pathway (M-ACM). Not built yet: the name is reserved so that it resolves to this project."""
