"""Go: game records, exact rules, feature planes, shards and policy networks."""
