-- Deliveries that used up their attempts leave the deferred; where dead letters are kept, each keeps its own copy.
-- The caller holds the cursor's row.
create or replace function bury(p bigint, g int, t timestamptz, exhausted bigint[], keep boolean)
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    buried bigint := 0;
    replaced bigint := 0;
begin
    if keep then
        delete from dead_letters l where l.partition_id = p and l.group_id = g and l."offset" = any (exhausted);
        get diagnostics replaced = row_count;
        insert into dead_letters
            (partition_id, group_id, "offset", key, meta, payload, published_at, error, attempts, dead_at)
        select p, g, d."offset", d.key, coalesce(d.meta, m.meta), coalesce(d.payload, m.payload),
               coalesce(d.published_at, m.published_at), d.error, d.attempt, t
        from deferred d
        left join messages_at(p, exhausted) m on m."offset" = d."offset"
        where d.partition_id = p and d.group_id = g and d."offset" = any (exhausted)
          and coalesce(d.payload, m.payload) is not null;
        get diagnostics buried = row_count;
    end if;
    delete from deferred d where d.partition_id = p and d.group_id = g and d."offset" = any (exhausted);
    update cursors c
    set dead = c.dead + buried, removed = c.removed + replaced,
        dropped = c.dropped + cardinality(exhausted) - buried
    where c.partition_id = p and c.group_id = g;
end $$;
