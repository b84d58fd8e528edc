//! castra's schema, migrations and transactions: the only SQL.
