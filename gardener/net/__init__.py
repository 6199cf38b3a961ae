"""The net between the stages: `wire` (bytes and messages), `session` (who may say what, when),
`address` (where), `link` (one TCP connection), `dial` and `listen` (the two ways to get one)."""
