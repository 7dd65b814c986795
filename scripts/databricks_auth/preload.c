/*
 * A module that is loaded and does nothing: programs written for Lakebase look
 * for "neon" and "databricks_auth" in shared_preload_libraries to learn where
 * they are. Built once for each name and each major version of Postgres, by
 * scripts/setup.sh, with -DPG_MAJOR=15 to 18.
 *
 * Packages of Postgres often come without its server headers, and none are
 * needed: what Postgres wants of a module is the block below, whose layout
 * stands in src/include/fmgr.h (Pg_magic_struct) of each version. A Postgres
 * built with other limits than the stock ones refuses the module.
 */
struct abi {
	int version;      /* PG_VERSION_NUM / 100 */
	int funcmaxargs;  /* FUNC_MAX_ARGS */
	int indexmaxkeys; /* INDEX_MAX_KEYS */
	int namedatalen;  /* NAMEDATALEN */
	int float8byval;  /* FLOAT8PASSBYVAL */
	char extra[32];   /* FMGR_ABI_EXTRA */
};

struct magic {
	int len; /* of this struct */
	struct abi abi;
#if PG_MAJOR >= 18
	const char *name;
	const char *version;
#endif
};

const void *Pg_magic_func(void)
{
	static const struct magic block = {
		sizeof(struct magic), {PG_MAJOR * 100, 100, 32, 64, 1, "PostgreSQL"},
#if PG_MAJOR >= 18
		0, 0,
#endif
	};
	return &block;
}
