-- Takes back what leases past their deadline still hold, as failed by timeout. The caller holds the cursor's row.
create or replace function expire(p bigint, g int, t timestamptz)
returns int
language plpgsql as $$
#variable_conflict use_column
declare
    late bigint[];
begin
    with gone as (
        delete from leases l where l.partition_id = p and l.group_id = g and l.deadline <= t
        returning l.pending)
    select array_agg(f.o order by f.o) into late
    from gone x
    cross join lateral unnest(x.pending) r
    cross join lateral generate_series(lower(r), upper(r) - 1) f (o);
    if late is null then
        return 0;
    end if;
    perform fail(p, g, t, late, array_fill(null::bigint, array[cardinality(late)]),
                 array_fill('timeout: not settled before the lease ended'::text, array[cardinality(late)]), 'timeout');
    return cardinality(late);
end $$;
