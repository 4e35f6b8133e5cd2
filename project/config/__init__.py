"""The configuration: schema, composition of YAML files and command line, checks, run identity, prompts."""
