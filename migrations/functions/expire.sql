-- Takes back what leases past their deadline still hold, as failed by timeout. The caller holds the cursor's row.
create or replace function expire(p bigint, g int, t timestamptz)
returns int
language plpgsql as $$
declare
    late bigint[];
    n int;
begin
    with gone as (
        delete from leases l where l.partition_id = p and l.group_id = g and l.deadline <= t
        returning l.pending)
    select array_agg(f.o order by f.o) into late
    from gone x
    cross join lateral unnest(x.pending) r
    cross join lateral generate_series(lower(r), upper(r) - 1) f (o);
    n := coalesce(cardinality(late), 0);
    if n > 0 then
        perform fail(p, g, t, late, array_fill(null::bigint, array[n]),
                     array_fill('timeout: not settled before the lease ended'::text, array[n]), 'timeout',
                     array_fill(null::jsonb, array[n]));
    end if;
    return n;
end $$;
