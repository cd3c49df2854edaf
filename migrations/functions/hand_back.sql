-- Returns deliveries that nobody will work on, for immediate redelivery: no attempt is used up.
-- Returns the positions, from 1, of those that were still in flight under their lease.
create or replace function hand_back(p bigint, g int, lease_ids bigint[], offsets bigint[])
returns int[]
language plpgsql as $$
#variable_conflict use_column
declare
    held int[] := held_by(p, g, lease_ids, offsets);
    returned bigint[] := array(select offsets[i] from unnest(held) i);
begin
    if cardinality(held) > 0 then
        perform take_back(p, g, returned);
        insert into deferred as d (partition_id, group_id, "offset", key, state, expires_at)
        select p, g, e."offset", e.key, 'held',
               e.published_at + make_interval(secs => (e.meta ->> 'ttlMs')::bigint / 1000.0)
        from envelopes_at(p, returned) e
        on conflict (partition_id, group_id, "offset") do nothing;
        update deferred d set state = 'held', lease_id = null, due_at = '-infinity'
        where d.partition_id = p and d.group_id = g and d."offset" = any (returned);
        perform hold_followers(p, g, array_agg(d."offset"), array_agg(d.key))
        from deferred d
        where d.partition_id = p and d.group_id = g and d."offset" = any (returned) and d.key is not null
          and (select gr.config ->> 'ordering' from groups gr where gr.id = g) <> 'none'
        having count(*) > 0;
    end if;
    return held;
end $$;
