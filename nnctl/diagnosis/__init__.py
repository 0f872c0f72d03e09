"""Why a network does not learn: from its configuration, its metrics, its layers and its data."""
