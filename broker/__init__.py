"""The core of the queue-native inference broker: topics, policy, limits and ledger. It never imports a provider."""
